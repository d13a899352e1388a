"""What the dataset scripts are made of: layouts, pairing of masks, and the way to meta.json."""
