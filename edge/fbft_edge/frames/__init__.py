"""What flows before a verdict: frames, pixel formats, image files, drawing, statistics of a picture."""
