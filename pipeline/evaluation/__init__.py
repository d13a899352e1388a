"""The metrics of metrics.py for any number of images: streamed, resampled, in bounded memory."""
