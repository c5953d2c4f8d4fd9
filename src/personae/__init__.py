"""Teach a diffusion model one character and keep it the same everywhere."""
