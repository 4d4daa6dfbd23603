"""Variants of a model, several runs each: what differs, with intervals over runs, sentences and sites."""
