<?php

// For installations without Composer: require this file instead of vendor/autoload.php.

declare(strict_types=1);

spl_autoload_register(static function (string $class): void {
    if (str_starts_with($class, 'Mega\\')) {
        $file = __DIR__ . '/src/' . strtr(substr($class, strlen('Mega\\')), '\\', '/') . '.php';
        if (is_file($file)) {
            require $file;
        }
    }
});
