"""Ground that every room stands on: settings, registry, files, devices."""
