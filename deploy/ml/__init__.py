"""The stage scripts of the ML pipeline and the models they train. No import of the bot."""
