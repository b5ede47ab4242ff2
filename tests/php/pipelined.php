<?php
// Pushes and sends lists with a window.
use Mega\Client;
use Mega\Message;

require __DIR__ . '/package.php';
[, $port, $key] = $argv;
$list = static function (string $prefix, int $count) use ($key) {
    for ($i = 1; $i <= $count; $i++) {
        yield $i => new Message("$prefix-$i", $key, ['first' => $i]);
    }
};
$client = new Client("127.0.0.1:$port");
foreach (['pushMany' => ['pipe', 1000], 'sendMany' => ['window', 200]] as $many => [$prefix, $count]) {
    $seen = [];
    foreach ($client->$many($list($prefix, $count), 100) as $i => $result) {
        expect($many, [$result->message->openid, $result->failure], ["$prefix-$i", null]);
        $seen[$i] = true;
    }
    expect('results', count($seen), $count);
}
echo "ok\n";
