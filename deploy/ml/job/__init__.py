"""What runs on the training compute, with `deploy.ml.{config,data,candidates,score}` beside it."""
