"""Searches: a study of trials that share what they compute, survive kills and processes, and never read test."""
