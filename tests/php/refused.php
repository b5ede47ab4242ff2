<?php
// What is refused for now is told from what has failed; the third argument is the command, the fourth the refusal.
require __DIR__ . '/package.php';
[, $port, $key, $command, $refusal] = $argv;
$client = new Mega\Client("127.0.0.1:$port");
$failure = failure(static fn () => $client->$command('o', $key));
expect('class', $failure === null ? null : get_class($failure), Mega\Exception\RefusedException::class);
expect('refusal', $failure->refusal->name, $refusal);
echo "ok\n";
