"""Quicker ways to compute what a base computes, and which one to take."""
