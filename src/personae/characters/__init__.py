"""Pictures of someone: folders, captions, masks, and the layouts of other tools."""
