"""How the model lies on ranks: degrees, process groups, model chunks."""
