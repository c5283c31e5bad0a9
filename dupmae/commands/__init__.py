"""The click commands, one file a group; heavy imports live inside the commands."""
