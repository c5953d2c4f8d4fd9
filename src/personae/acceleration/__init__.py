"""Quicker ways to compute what a base computes, one file each."""
