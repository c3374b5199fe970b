-- Who holds the baton, and the number of the last transaction that wrote: it never falls, unless an older copy was restored.
SELECT b.term, b.token, b.batch, b.holder, b.instance, b.released FROM {group}_baton AS b WHERE b.id = 1
