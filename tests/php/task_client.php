<?php
// Sends a list of messages as the original's TaskClient does: one outstanding, the next one only when
// the last one is answered; 200 and 400 go on, 500 ends the task as interrupted and resumable, any
// other code leaves it waiting for ever. A lost connection is made anew once, at once, and the message
// without an answer is sent again.
require __DIR__ . '/mega.php';
[, $port, $key, $count, $prefix] = $argv;
$mega = new Mega($port);
stream_set_timeout($mega->socket, 60);
$reconnects = 0;
for ($i = 1; $i <= $count; $i++) {
    while (true) {
        try {
            $mega->push($i, "$prefix-$i", $key, ['first' => $i]);
            $result = $mega->result();
            break;
        } catch (Exception $lost) {
            if ($reconnects++ > 0) {
                exit("lost at $i\n");
            }
            try {
                $mega = new Mega($port);
            } catch (Exception $refused) {
                exit("refused at $i\n");
            }
        }
    }
    if ($result['opaque'] !== $i) {
        exit("somebody else's answer at $i\n");
    }
    switch ($result['code']) {
        case 200:
        case 400:
            break;
        case 500:
            exit("interrupted at $i: {$result['message']}\n");
        default:
            // What the original does: nothing, and it waits for the next answer.
            sleep(3600);
    }
}
echo "done\n";
