"""What the commands do, from flags to files: runs on datasets and on single images."""
