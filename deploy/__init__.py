"""What a team's server consists of: databases, accounts, secrets, and a private MySQL for one machine."""
