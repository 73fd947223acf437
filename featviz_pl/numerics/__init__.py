"""Tensor mathematics, random numbers and argument checks; imports no other room."""
