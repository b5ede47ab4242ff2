<?php
// Two clients at the same time: neither gets what is the other's. One sends within the loop of its own pushes.
use Mega\Client;
use Mega\Message;

require __DIR__ . '/package.php';
[, $port, $key] = $argv;
$a = new Client("127.0.0.1:$port");
$b = new Client("127.0.0.1:$port");
$list = array_map(static fn (int $i) => new Message("a-$i", $key), range(1, 200));
foreach ($a->pushMany($list, 10) as $place => $result) {
    expect('a', [$result->message, $result->failure], [$list[$place], null]);
    $i = $place + 1;
    $b->send("b-$i", $key, ['first' => 'b']);
    $failure = failure(static fn () => $a->send("c-$i", 'no-such-key'));
    expect('c', $failure->answer, 'template key not exists');
}
echo "ok\n";
