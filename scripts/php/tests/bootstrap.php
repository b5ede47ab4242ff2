<?php

declare(strict_types=1);

require __DIR__ . '/../autoload.php';
require __DIR__ . '/FakeServer.php';
require __DIR__ . '/Failures.php';

if (!interface_exists(\Psr\Log\LoggerInterface::class)) {
    require __DIR__ . '/LoggerInterface.php';
}
