"""What the ranks of all queries say: metrics, intervals, tests against chance and between models."""
