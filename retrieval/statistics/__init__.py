"""Statistics of the ranks of all queries: metrics, intervals, tests against chance and between models."""
