"""From a dataset's folder to its meta.json: one script per dataset, and one for anybody's own data."""
