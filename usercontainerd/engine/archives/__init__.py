"""Images in files and in other tools' stores: load, save, import."""
