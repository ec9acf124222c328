"""Images on their way from and to registries: pull and push."""
