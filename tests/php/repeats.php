<?php
// Over connections that break in the middle of the answers, or while mega is killed: with ids everything comes to a
// good end.
use Mega\Client;
use Mega\Message;

require __DIR__ . '/package.php';
[, $port, $key, $many] = $argv;
$client = new Client("127.0.0.1:$port");
foreach (['push', 'send'] as $command) {
    $list = array_map(static fn (int $i) => new Message("$command-$i", $key, [], "$command-id-$i"), range(1, (int) $many));
    $count = 0;
    foreach ($client->{"{$command}Many"}($list, 32) as $result) {
        expect($command, $result->failure?->getMessage(), null);
        $count++;
    }
    expect('results', $count, (int) $many);
}
echo "ok\n";
