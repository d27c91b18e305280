"""The packaged kinds of data, one YAML file each."""
