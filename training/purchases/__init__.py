"""Who buys again, and how often: customers without a contract, who leave without saying so."""
