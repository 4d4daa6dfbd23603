"""Figures of results, in one style, with Chinese glyphs."""
