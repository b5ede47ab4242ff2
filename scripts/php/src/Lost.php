<?php

declare(strict_types=1);

namespace Mega;

/**
 * A connection is of no use any more; the message says why.
 *
 * @internal
 */
class Lost extends \Exception
{
}
