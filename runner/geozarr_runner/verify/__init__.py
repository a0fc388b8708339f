"""The output is compared with the source, pixel by pixel. Nothing here shares code with `convert`."""
