<?php
// Runs the examples of a manual of the client package as they stand there, against the daemon of the test. They
// leave out nothing but the address and the key.
[, $port, $key, $manual] = $argv;
preg_match_all('/^```php\n(.*?)^```$/ms', file_get_contents($manual), $examples);
if (count($examples[1]) < 4) {
    exit("$manual has " . count($examples[1]) . " examples\n");
}
$folder = sys_get_temp_dir() . '/mega-readme-' . getmypid();
mkdir($folder);
chdir($folder);
register_shutdown_function(static function () use ($folder) {
    array_map('unlink', glob("$folder/*"));
    rmdir($folder);
});
file_put_contents('openids.txt', "reader-1\nreader-2\nreader-3\n");
require __DIR__ . '/package.php';
ob_start();
foreach ($examples[1] as $example) {
    $example = strtr($example, [
        '127.0.0.1:9501' => "127.0.0.1:$port",
        'order-paid' => $key,
        "require 'vendor/autoload.php';\n" => '',
    ]);
    eval(preg_replace('/^<\?php\n/', '', $example));
}
ob_end_clean();
echo "ok\n";
