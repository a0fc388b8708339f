"""Where the product is read from: preflight, the product's own metadata, and staging onto the work volume."""
