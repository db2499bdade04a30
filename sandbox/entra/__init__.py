"""A local Entra: people sign in on its pages, and apps get tokens for them."""
