"""Whole models: single files and diffusers folders."""
