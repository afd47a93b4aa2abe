"""The demo shop: a seeded simulator whose truth is known. `ingestion.demo_shop` is its front."""
