"""How fast and how lean: one measurement a process, ours and a plain diffusers loop by turns."""
