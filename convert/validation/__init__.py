"""Proves that stored weights compute what they should: stage by stage, beside a float64 reference. Needs torch."""
