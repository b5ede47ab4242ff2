<?php
// Reloads templates, and sees each kind of failure.
use Mega\Client;
use Mega\Exception\ConnectionException;
use Mega\Exception\InvalidArgumentException;
use Mega\Exception\RejectedException;
use Mega\Options;

require __DIR__ . '/package.php';
[, $port, $key] = $argv;
$client = new Client("127.0.0.1:$port");
$client->tset($key);
$failure = failure(static fn () => $client->tset('no-such-key'));
expect('tset unknown', [get_class($failure), $failure->answer], [RejectedException::class, 'template key not exists']);
$failure = failure(static fn () => $client->send('refused', $key));
expect('refused', [$failure->getCode(), $failure->errcode, $failure->errmsg], [400, 43004, 'require subscribe']);
$failure = failure(static fn () => $client->push('nobody', $key, ['first' => ['nested']]));
expect('nested', [get_class($failure), strpos($failure->answer, 'invalid data')], [RejectedException::class, 0]);
$failure = failure(static fn () => $client->push('nobody', $key, ['first' => str_repeat('x', 3 << 20)]));
expect('too long', get_class($failure), InvalidArgumentException::class);
$nobody = new Client('127.0.0.1:1', new Options(retryFor: 0.0));
expect('nobody there', get_class(failure(static fn () => $nobody->tset($key))), ConnectionException::class);
echo "ok\n";
