-- Every durable subscription.
SELECT id, client_id, name, topic FROM {group}_durable
