"""One YAML file and the environment, as arguments, become a frozen `Config`, or an error that names the key.

Every default stands beside its reason. Nothing here reads `os.environ`, connects to anything or creates a folder.
"""
