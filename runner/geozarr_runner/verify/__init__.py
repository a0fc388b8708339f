"""The output is asked, pixel by pixel, whether it is what the source says. Nothing here shares code with `convert`."""
