"""Numbers and figures as a page with its JSON, and as a model card; no model is loaded here."""
