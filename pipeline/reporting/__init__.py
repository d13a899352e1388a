"""What a run leaves behind to be seen and read: pictures, tables and the report."""
