<?php
// What the scripts share that speak through the client package.
require __DIR__ . '/../../scripts/php/autoload.php';

function expect($what, $got, $wanted)
{
    if ($got !== $wanted) {
        fwrite(STDERR, "$what: got " . var_export($got, true) . ', wanted ' . var_export($wanted, true) . "\n");
        exit(1);
    }
}

function failure(callable $call): ?Mega\Exception\MegaException
{
    try {
        $call();
    } catch (Mega\Exception\MegaException $failure) {
        return $failure;
    }
    return null;
}
