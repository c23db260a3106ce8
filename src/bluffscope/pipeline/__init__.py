"""One shard, from texts to rows: plan the forward passes, read the residual stream, encode it, measure."""
