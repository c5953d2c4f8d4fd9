"""The settings of the techniques: `settings/lora.py` holds those of `lora.py`, without torch."""
