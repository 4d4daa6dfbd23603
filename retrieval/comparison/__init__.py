"""Comparisons of models, controls and variants, with intervals over runs, sentences and sites."""
