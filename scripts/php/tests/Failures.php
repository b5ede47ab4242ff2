<?php

declare(strict_types=1);

namespace Mega\Tests;

use Mega\Exception\MegaException;

/** What a call throws that is to fail. */
trait Failures
{
    private static function failure(callable $call): MegaException
    {
        try {
            $call();
        } catch (MegaException $failure) {
            return $failure;
        }
        self::fail('nothing was thrown');
    }
}
