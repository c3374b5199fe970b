-- The row of the baton, held to the end of the transaction: what is being written ends first, nothing can follow it.
SELECT term, token, batch, writer_mark, last_destination, last_durable FROM {group}_baton WHERE id = 1 FOR UPDATE
